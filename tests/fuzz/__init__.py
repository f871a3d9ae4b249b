"""Fuzzing: every entry for untrusted bytes, damaged inputs for each, and limits for all.

docs/fuzzing.md says how to run it.
"""
