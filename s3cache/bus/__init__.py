"""
What hosts tell each other through Redis, and nothing depends on.

``bus`` sends and hears messages in threads of its own; ``turns`` lets hosts
that write at the same time do so one after the other. A message may get lost,
come late or twice: who listens is told when it may have missed some.
"""
