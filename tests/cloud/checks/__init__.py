"""The harness's own tests: a wrong model of the cloud would prove nothing about the nodes in it."""
