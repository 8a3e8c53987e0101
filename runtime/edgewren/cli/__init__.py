"""The command `edgewren`: `main`, and one file per verb that parses, calls and prints. Knows no formats, no models."""
