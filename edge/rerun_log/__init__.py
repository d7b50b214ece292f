"""Everything Rerun: what the scene looks like, how pictures are encoded, and the two places it goes to.

    Observation --> SceneSink --+--> Parcel --+--> RecordingSink   a .rrd file
    Frame       --> VideoSink --+             +--> LinkSink        a gRPC address

Chunks are built once and shipped to both, so that they carry the same ids wherever they end up.
"""
