"""What a session is written and sent to: caption files, OBS, a webhook."""
