"""The commands. Each file turns its arguments into one call, prints, and gives the exit code; no logic lives here."""
