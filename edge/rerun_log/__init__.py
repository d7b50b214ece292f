"""Everything Rerun: what the scene looks like, how pictures are encoded, and the places it goes to.

    Observation --> SceneSink --+--> Parcel --> SceneLog --+--> Segments    .rrd files
    Frame       --> VideoSink --+                          +--> Forwarder   a server

Chunks are built and encoded once, so that they are the same bytes with the same ids wherever they end up.
"""
