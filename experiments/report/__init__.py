"""One HTML page that shows all there is, without a server: curves, images, runs and sweeps.

gather has what points.csv and run folders say, pictures the files of one picture at equal size, page makes the page
of both, with page.html, page.css and page.js, and plotly inside it.
"""
