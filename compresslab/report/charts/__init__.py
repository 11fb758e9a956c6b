"""The report's charts, one file a kind: Vega-Lite specifications that become static SVG in the page's own colours (light, dark, print).

A chart never depends on colour alone: a verdict also has its own shape, and an extrapolated value is drawn hollow. Marks that are one
variant's carry its name, so that the page can point them out.
"""
