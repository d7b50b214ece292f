"""Observations as MQTT messages: topics, wire format, connection, sink."""
