"""Reports for people: facts of a model (`facts`), pictures (`charts`), one HTML file of both (`page`)."""
