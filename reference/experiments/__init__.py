"""What SynFER's parts are worth on synfer-mini: one module an experiment, one command each.

Rendered faces of identities that nothing was trained on play the part of real photographs. The
judges (`judge`, `au-reader` of reference.classifiers, and the photo-trained `fer`) neither guide
nor label. Sampled sets and trainings are kept in --work, so an experiment that was stopped goes on.
"""
