"""The rules that turn a sender's JSON into appends: a small language of paths and templates, kept in YAML.

`normalizers/README.md` describes the language. Everything here is total: whatever types a hostile payload
holds, a rule yields text or nothing; only a bad rule file raises, and only when it is loaded.
"""
