package console

import (
	"cmp"
	"net/http"
)

// personPage is the content of a person's page.
type personPage struct {
	PersonStory
	Replies []replyText
	Resend  resendOffer
	Told    int // messages of which the timeline tells
}

func (p *Pages) person(w http.ResponseWriter, r *http.Request, by *Principal) error {
	place := p.api.View.Place()
	t := p.telling(r)
	story, err := p.api.TellPerson(r.Context(), by, r.PathValue("person"), t)
	if err != nil {
		return err
	}
	f, err := p.factsOf(r, story.Message.ID, &t)
	if err != nil {
		return err
	}
	content := personPage{PersonStory: story, Replies: repliesIn(f, t), Resend: p.offer(&f, t.Now), Told: min(len(story.Messages), daysOf)}
	return p.show(w, r, http.StatusOK, shell{
		Title: cmp.Or(story.Name, string(story.Addresses[0])) + " – deliverd", Page: "person", Section: "start",
		Watch: "person=" + r.PathValue("person"), Place: place, Content: content,
	})
}
