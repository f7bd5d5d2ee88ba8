"""A Hub to test against: real git repositories and large files behind the routes that the clients call.

`running.py` starts it in a process of its own; `storage.py` holds repositories and blobs, `cas.py` the chunk store of
the Xet protocol, `api.py`, `content.py` and `server.py` the routes, `faults.py` what can be made to go wrong.
"""
