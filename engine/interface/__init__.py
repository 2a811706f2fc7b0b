"""The contract of an attribution method, and the registry that finds methods. Imports no other room of the engine."""
