"""Golden pairs: what goes in and what comes out, as plain files that anybody can read and add."""
