"""What connector authors test with: fixtures as exact bytes, the conformance suite, simulated platforms and targets."""
