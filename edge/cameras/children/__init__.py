"""Programs that hold a camera's driver, each in a process of its own: a driver call that never returns ends with it.

For any Python from 3.8 on, so that the system's can run them with its own numpy, libcamera and GStreamer. They import
the standard library, their driver's library and each other, nothing else of edge-pose.
"""
