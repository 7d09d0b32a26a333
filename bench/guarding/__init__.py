"""The parts of `bench.guard`."""
