"""Who may connect, and how much each may take."""
