"""Who is asked: `questions` by protocol, and `model`, one of the trainer."""
