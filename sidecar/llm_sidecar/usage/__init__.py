"""What people ask of a team's counters and ledger: how far limits are used, who spent it, and whether the two agree."""
