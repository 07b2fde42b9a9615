"""AG-UI over HTTP: a session's log as streams of AG-UI events, one stream for each run that a client asks for."""
