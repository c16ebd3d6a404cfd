"""Other ways to ask for a session, which people know already: a translation each, without I/O."""
