"""The scenarios: what must hold under the usual events of a cloud. Each is a function of a `Setup`."""
