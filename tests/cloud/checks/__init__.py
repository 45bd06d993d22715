"""The harness's own tests: a model of the cloud that is wrong proves nothing about what runs in it."""
