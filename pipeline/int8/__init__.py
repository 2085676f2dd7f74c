"""Embedding in int8: the network of a table quantised by a sample of its source, if that passes a comparison.

Nothing is re-exported here: options are needed by every job, and what quantises takes seconds to import.
"""
