"""What a session is written and sent to: caption files, HLS, OBS, Zoom, YouTube, a webhook."""
