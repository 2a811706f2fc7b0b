"""What an attribution method sees, and the contract that it fulfils. Imports no other room of the engine."""
