"""Parameters, initial states and controls from observations."""
