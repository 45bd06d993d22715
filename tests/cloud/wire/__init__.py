"""Bytes: requests in AWS's query protocol, and answers in XML."""
