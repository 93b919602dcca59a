def setup(app): 
    return {}
