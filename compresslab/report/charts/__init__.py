"""The report's charts, one file per kind: Vega-Lite specifications, rendered to static SVG in the page's colours (light, dark, print).

No chart depends on colour alone: each verdict has its own shape, and an extrapolated value is drawn hollow. The marks of a variant
have its name as an attribute, so that the page can highlight them.
"""
