"""One FrameSource a file: where frames come from."""
