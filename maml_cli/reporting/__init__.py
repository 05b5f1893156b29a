"""Results for people and scripts: tables, JSON documents and figures."""
