"""What a profile is made of."""
