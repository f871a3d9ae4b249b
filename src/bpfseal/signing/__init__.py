"""Signing: what a signature covers, CMS messages, certificates, signers and verification."""
