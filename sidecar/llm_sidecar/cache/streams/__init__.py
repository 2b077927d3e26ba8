"""From a native stream to the plain answer that it is, and from a stored plain answer to a native stream.

An entry of the cache is always a plain answer, so that one serves both kinds of callers. Each language has a file here
with two functions, both pure:

    assemble   the stream's documents  →  the answer's document
    replay     the answer's document   →  the stream's frames

Neither guesses: where it meets anything that it does not know how to carry over, it raises `NotUnderstood`, and that
answer is not stored, or not found. Both speak the application's own language only: `llm_sidecar.translation` reads
what others say, and may leave out what has no word; here nothing may be left out but padding.
"""
