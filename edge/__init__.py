"""edge-pose: cameras in, poses out, over MQTT and into Rerun."""

__version__ = "0.1.0"
