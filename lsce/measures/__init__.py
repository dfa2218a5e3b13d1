"""What is measured of probabilities, features and networks."""
