"""Which packets are masqueraded and forwarded, as rules and as the text that spells them.  Pure."""
