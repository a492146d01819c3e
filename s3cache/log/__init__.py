"""The log protocol, free of I/O.

Every function here that touches the world is a generator: it yields an
effect (a request to the store, a question to the replica, the clock, a
lock), is sent the answer, and returns its result. ``drive`` performs the
effects for real; the simulator in ``tests/simulation`` performs them in any
order that a bad day could bring.
"""
