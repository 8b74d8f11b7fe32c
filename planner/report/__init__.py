"""The only code that formats: answers as JSON, tables and screens."""
