"""Ways to spend fewer tokens on a request: each is off until a TeamQuota asks for it, and tells what it saved."""
