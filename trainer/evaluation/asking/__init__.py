"""Who is asked: `questions` by protocol, `model`, one of the trainer, and `server`, one behind a server."""
