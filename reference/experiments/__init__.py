"""What SynFER's parts add on synfer-mini; each module is one experiment and one command.

Rendered faces of identities that nothing was trained on stand in for real photographs. The judges
(`judge`, `au-reader` of reference.classifiers, and the photo-trained `fer`) neither guide nor
label. Sampled sets and trainings are kept in --work, so a stopped experiment resumes.
"""
