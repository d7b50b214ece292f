"""The speed figures of this machine: MediaPipe's own loop, a usual example's, and the daemon on the same frames."""
