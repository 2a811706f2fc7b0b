"""What a person holds in Python: stores, answers, selections. The package's root gives these names: `import headwater as hw`."""
