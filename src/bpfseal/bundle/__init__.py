"""Signed loaders on disk: one bundle holds the variants of one object."""
