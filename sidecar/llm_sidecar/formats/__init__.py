"""Wire languages, one file each, pure: bytes in, facts and bytes out. No sockets, no clocks, no configuration."""
