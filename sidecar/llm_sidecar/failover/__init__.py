"""Which providers may answer a request, in which order, and what one attempt at one of them comes to."""
