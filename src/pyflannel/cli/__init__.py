"""The programs: ``flanneld`` the agent, ``flannelctl`` for people.  Heavy parts are imported when they are needed."""
