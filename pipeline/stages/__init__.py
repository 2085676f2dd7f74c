"""What happens to one unit: read and decode, embed, commit. Plain functions on Arrow tables; graph.py puts them on Ray.

A unit travels as one table with one row an image, in the order of its plan, rejects included. Three columns tell what
became of a row: ``code`` (null while the image is good) with ``stage`` and ``message``; and ``trouble`` on every row
tells why the unit can't be committed now, null while it can.

Each stage is a file of its own that imports no more than it needs, since each runs in processes of its own: a reading
process must not spend seconds on importing PyTorch. So nothing is re-exported here.
"""
